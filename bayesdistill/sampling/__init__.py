"""Fit laws with NUTS; save and load fits.

`fit` compiles the model of `model.build_model` (`bayesdistill.compiler`), samples it with nutpie (low-rank mass matrix), and returns
a DataTree with the draws, the data and the provenance, for ArviZ and the other subpackages. `save` and `load` write and read a fit
or a plan as a netCDF file. Files are replaced atomically and read without unpickling.
"""

from bayesdistill.sampling._fit import fit
from bayesdistill.sampling._prior_table import prior_table
from bayesdistill.sampling.files import load, save
from bayesdistill.sampling.groups import log_likelihood
from bayesdistill.sampling.nuts import ADAPTATION, MAX_TREEDEPTH
