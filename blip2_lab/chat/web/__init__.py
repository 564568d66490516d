"""The page in the browser: `blip2-lab app`, or `python app.py` in the repository.

    app         the page and its handlers, the options of the command line
    components  what the page is made of: HTML of answers, uploads with their limits, how it is served
    search_tab  the search in a folder of pictures

Only these modules import gradio. Nothing is imported here, because app.py sets gradio's environment first.

Paper: sections 4.1 and 4.4. Notebooks: 06, 12.
"""
