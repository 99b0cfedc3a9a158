"""Reports: a self-contained HTML page, tables and figures as files, and a methods paragraph."""

from bayesdistill.reporting._cite import cite
from bayesdistill.reporting._methods_text import methods_text
from bayesdistill.reporting._report import PAGE, check_report, report, report_files, write_report
from bayesdistill.reporting.sentences import answer_sentences
