"""Functions for every other folder: opening images, writing files, console output, distributed training.

    images        open_image: images from users and data sets, with limits on format and size; the images of a folder
    damage        what is wrong with the bytes of a picture, where its decoder does not tell
    files         write_atomically: a file is replaced completely or not at all; the mode of new files
    characters    does a text say anything, and can it be printed on a terminal?
    significance  is a difference between pairs more than chance? Fisher's randomization test
    console       errors in one sentence, progress on stderr, "did you mean"
    threads       OpenMP's threads sleep while they wait
    distributed   gather across ranks, FSDP2 sharding, gradient checkpointing

Import from the modules. This package imports nothing by itself, because `blip2-lab --help` needs `console` alone.
"""
