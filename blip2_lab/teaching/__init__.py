"""For reading and for exercises: plain twins of fast code, and checks of a reader's answers. Nothing else imports it.

    plain_stage1   stage 1 in the order of the paper, one pass for each objective: read it before models/stage1.py
    int8_by_hand   eight bits in the open: absmax, outliers
    checks         the exercises' checks, which name the likely mistake

Paper: section 3.2, Figure 4. Notebooks: all with exercises.
"""
