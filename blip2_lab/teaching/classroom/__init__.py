"""A class with nbgrader: hand the notebooks out, grade what comes back, give feedback and marks.

    course        the folder of a course: its notebooks, nbgrader's configuration, the release
    grading       all submissions, several at a time: a child process with limits for each, results merged
    submission    one submission, in its child process
    execution     nbgrader's preprocessors for a submission: put back deleted cells, run the cells
    originals     the library's functions, put back before each check
    marks         feedback pages, and a table of marks

nbgrader does what it can: it clears, locks and releases notebooks, stores marks and penalties, and writes feedback.

Paper: none. Notebooks: all with exercises.
"""
