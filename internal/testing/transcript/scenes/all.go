//go:build linux

package scenes

import "slices"

// All returns the scenes of this version, oldest first.
func All() []Scene {
	return slices.Concat(First(), Attach(), TTY(), Tunnels(), Copy(), Watch(), Clone())
}
