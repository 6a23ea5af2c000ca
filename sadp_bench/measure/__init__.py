"""Measurements that no single run contains: interleaved speed, and scores compared with exact gradient norms."""
