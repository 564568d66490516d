"""The page in the browser: `blip2-lab app`, or `python app.py` in the repository.

    start       the options of the command line; what is wrong with them is said before anything heavy is imported
    app         the page and its handlers
    components  what the page is made of: HTML of answers, uploads with their limits, how it is served
    api         the same for programs: named parameters, plain values
    beside      two models side by side: one picture, one question, two answers
    search_tab  the search in a folder of pictures
    line        who is next: many questions at once, and one thing at a time for each visitor
    guard       what stands between the network and the page: who may ask, how often, how much
    uploads     the pictures that visitors upload: whose they are, when they are deleted
    visitors    where a request comes from; wrong passwords

Only app, components, api, beside and search_tab import gradio. Nothing is imported here: start.py has to be quick, and
app.py sets gradio's environment first.

Paper: sections 4.1 and 4.4. Notebooks: 06, 12.
"""
