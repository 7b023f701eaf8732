"""The first sitecustomize of a process, where an injected Gismo runtime is on PYTHONPATH; it runs the next one."""

__import__("gismo_injected").from_sitecustomize()
