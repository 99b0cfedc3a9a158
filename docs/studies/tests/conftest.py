"""Studies that tests run find nothing that earlier ones compiled, and leave nothing with the user."""

import os

os.environ["BAYESDISTILL_CACHE"] = "off"
