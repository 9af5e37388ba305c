"""The registry: which instances serve which name. `state` decides (pure); what stores and tells it stands around."""
