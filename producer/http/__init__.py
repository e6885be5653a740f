"""What the HTTP servers share: limits on connections and bodies, and the manners of HTTP."""
