"""A fleet in virtual time: the code that decides live, tried on traffic of the past or of somebody else."""
