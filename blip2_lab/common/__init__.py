"""What every other folder may use: opening pictures, writing files, talking to a console, many processes.

    images        open_image: pictures from outside, with limits on format and size
    files         write_atomically: a file's content is replaced whole or not at all
    console       errors in one sentence, progress on stderr, "did you mean"
    distributed   many processes that train as one: gather, shard, checkpoint layers

Import from the modules. This package imports nothing by itself, because `blip2-lab --help` needs `console` alone.
"""
