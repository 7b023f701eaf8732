"""The API `gismo.io`: the models here are the source from which the CRDs are generated. No I/O."""
