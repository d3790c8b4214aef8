"""What a deploy does to a host, on throwaway workstations: faults, changes, attacks."""
