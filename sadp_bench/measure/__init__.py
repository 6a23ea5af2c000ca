"""Measurements that no single run contains: interleaved speed, and scores against exact gradient norms."""
