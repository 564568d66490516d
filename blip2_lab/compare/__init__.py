"""Bridges side by side, on equal terms: trained, measured, and written as a page with figures.

    rows     what is compared: the recipes of each row, and how many steps each gets
    cost     seconds and memory of a training step
    bridges  the comparison: trains what is missing, measures, stores each result
    page     tables, figures and the page from the stored results

Begin with `bridges.compare`, which `blip2-lab compare bridges` calls.

Paper: Figure 5 (with and without stage 1), and the papers that models/bridges/ names. Notebook: 16.
"""
