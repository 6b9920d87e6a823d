"""Other systems on a farm: joblib, Dask, Parsl. Each module imports the one it is for."""
