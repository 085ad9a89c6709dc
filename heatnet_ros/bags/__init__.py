"""Recordings of a camera (ROS 2 bags: mcap, db3; ROS 1: .bag), read and written without ROS."""
