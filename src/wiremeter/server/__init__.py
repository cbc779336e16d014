"""Collects from agents, stores, answers. Imports neither metering nor datapath: it runs where nothing is metered."""
