"""A world apart: EUM, SM-DPf, virtual eUICCs, the robot that feeds units, and faults.

Shares no code with what it judges: nothing here imports another part of ifpp, and nothing above imports this but the
composition of the demo.
"""
