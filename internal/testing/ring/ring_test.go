//go:build linux

package ring

import "testing"

func TestJailerBesideAFirecracker(t *testing.T) {
	for firecracker, want := range map[string]string{
		"/opt/firecracker": "/opt/jailer",
		"/opt/firecracker/firecracker-v1.13.0-x86_64": "/opt/firecracker/jailer-v1.13.0-x86_64",
	} {
		if got := Jailer(firecracker); got != want {
			t.Errorf("of %s it is %s, want %s", firecracker, got, want)
		}
	}
}
