"""For reading and for exercises: plain versions of fast code, and checks of a reader's answers.

    plain_stage1   stage 1 in the order of the paper, one pass for each objective: read it before models/stage1.py
    int8_by_hand   8-bit quantization in a few lines: absmax, outliers
    nf4_by_hand    4-bit quantization in a few lines: NF4's levels, blocks, what the scales cost
    checks         the exercises' checks, which name the likely mistake
    classroom      `blip2-lab class`: hand the notebooks out and grade them, with nbgrader

The rest of the package does not import this folder; benchmarks and tests do, and the command `class`.

Paper: section 3.2, Figure 4. Notebooks: all with exercises.
"""
