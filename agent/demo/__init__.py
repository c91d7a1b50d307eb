"""The model, the data and the story behind ``tinyward demo``.

The rules this folder keeps:
 * Everything is real: keys, repository, bundles, daemon, worker, recorded samples. The
   story only does what an owner, an operator and an attacker would do, and looks at
   what anyone could look at: the unix socket and the prediction lines.
 * Nothing is claimed that was not measured in this run.
"""
