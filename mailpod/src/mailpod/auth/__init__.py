"""Who may log in: password verifiers, SCRAM, and the brakes on guessing.

Charter: equal answers and equal time for known and unknown users; no secret leaves this package, in no log and no error.
"""
