"""The picture-book world: scenes, how they are drawn, what is said about them, and the texts its readers have read.

Reading order: scene (what there is), pen, kinds, draw (how it looks), words, referring, facts, templates, wordings,
noun_phrases, asking, corpus (what is said), tokenizer.
"""
