"""The page in the browser: `blip2-lab app`, or `python app.py` in the repository.

    app         the page and its handlers, the options of the command line
    components  what the page is made of: HTML of answers, uploads with their limits, how it is served
    search_tab  the search in a folder of pictures
    guard       what stands between the network and the page: who may ask, how often, how much
    uploads     the pictures that visitors upload: whose they are, when they are deleted
    visitors    where a request comes from; wrong passwords

Only the first three import gradio. Nothing is imported here, because app.py sets gradio's environment first.

Paper: sections 4.1 and 4.4. Notebooks: 06, 12.
"""
