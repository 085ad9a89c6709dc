import importlib

import pytest

pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")
# triton and Mesa's software rasteriser both bring LLVM: loaded second, triton's crashes the process
importlib.import_module("torch._dynamo")
