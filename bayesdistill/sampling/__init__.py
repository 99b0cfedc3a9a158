"""Fitting the law with NUTS, and keeping fits in files.

`fit` compiles the model of `model.build_model` (`bayesdistill.compiler`), samples it with nutpie (low-rank mass matrix), and returns
everything that ArviZ and the other subpackages need in one DataTree, with its provenance. `save` and `load` keep a fit, or a
plan, in a netCDF file: written aside and renamed, so that an interrupted write leaves the earlier file as it was, and read
without unpickling.
"""

from bayesdistill.sampling._fit import fit
from bayesdistill.sampling._prior_table import prior_table
from bayesdistill.sampling.files import load, save
from bayesdistill.sampling.groups import log_likelihood
from bayesdistill.sampling.nuts import ADAPTATION, MAX_TREEDEPTH

__all__ = ["ADAPTATION", "MAX_TREEDEPTH", "fit", "load", "log_likelihood", "prior_table", "save"]
