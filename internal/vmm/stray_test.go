//go:build linux

package vmm

import (
	"testing"
)

func TestEndStrays(t *testing.T) {
	sleeper := func(args ...string) *Process {
		p, err := Start(Command{Path: "/bin/sh", Args: append([]string{"-c", "kill -STOP $$; :", "firecracker"}, args...)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { end(t, p) })
		return p
	}
	stray, other, last := sleeper("--id", "abc", "--api-sock", "x"), sleeper("--id", "abcd"), sleeper("abc", "--id")
	if err := EndStrays("--id", "abc"); err != nil {
		t.Fatal(err)
	}
	<-stray.Done()
	for _, p := range []*Process{other, last} {
		select {
		case <-p.Done():
			t.Error("another process was killed")
		default:
		}
	}
}
