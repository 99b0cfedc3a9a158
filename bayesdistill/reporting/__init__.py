"""The report of a fit and a plan: one page that needs no network, its tables and figures as files, the methods in words."""

from bayesdistill.reporting._cite import cite
from bayesdistill.reporting._methods_text import methods_text
from bayesdistill.reporting._report import PAGE, report, report_files, write_report
from bayesdistill.reporting.sentences import answer_sentences

__all__ = ["PAGE", "answer_sentences", "cite", "methods_text", "report", "report_files", "write_report"]
