"""The lab: a throwaway workstation, in a container, on which a deploy can be tried."""
