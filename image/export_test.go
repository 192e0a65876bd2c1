//go:build linux

package image

import "time"

// SetPace makes a store patient or not, for tests: the pause after a failure, and how long nothing may come.
func (s *Store) SetPace(pause, stall time.Duration) { s.pause, s.stall = pause, stall }

// Attempts is how often something is tried without any progress.
const Attempts = attempts
