"""report.html: one file that says what a run has found, opens anywhere and needs nothing else. A
file here is a section of the page, with the template of the same name beside it."""
