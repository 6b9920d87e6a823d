"""What afarm costs and what it is good for, beside its peers. See README.md."""
