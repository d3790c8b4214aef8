"""Tests on a virtual machine: a real kernel, reboots and power cuts."""
