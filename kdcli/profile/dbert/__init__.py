"""d-bert's JSON configs as profiles: what is kept, what is changed and why (github.com/castorini/d-bert, confs/).

The faults of the released code are not carried over: settings that it never reads, AdaDelta at 5e-4, a gradient clipped
at 30,000, a weight of 1 for the labels that the paper gives 0.
"""

from kdcli.profile.dbert.imported import Change, Imported, import_dbert

__all__ = ["Change", "Imported", "import_dbert"]
