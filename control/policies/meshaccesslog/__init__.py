"""The policy: access logs of inbounds and outbounds."""
