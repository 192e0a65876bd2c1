//go:build linux

package network

import (
	"testing"
)

func TestHostWorld(t *testing.T) {
	r := newRig(t)
	n := r.open()
	s := r.make(n, 7)
	t.Log(n.Info(), s)
	t.Log("\n" + world(t, r.host))
	t.Log("\n" + worldAt(t, r.options.hubPath()))
	t.Log("\n" + worldAt(t, s.Namespace))
}
