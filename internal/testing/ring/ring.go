//go:build linux

// Package ring says which tests can run here.
//
// Tests are in four rings, told by their names: TestHost… needs root, TestReal… the real Firecracker and whatever KVM there is, TestLab… a KVM that runs an unmodified Linux;
// all others need nothing. A test of a ring calls the ring's function first.
//
// # Caveats
//
// $MICROVM_TEST_FIRECRACKER names another firecracker to test, with its jailer beside it.
//
// On a machine that is not set up, a test is skipped with the reason. When $MICROVM_TEST_RING asks for its ring it fails instead: what the runner promises to run is
// never skipped.
package ring

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/setup"
)

// Host is for tests that need root, and nothing else.
func Host(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacks(t, "2", "it needs root")
	}
}

// Real is for tests of the real Firecracker with the few-instruction guest. It returns where things are.
func Real(t testing.TB) setup.Parts {
	t.Helper()
	if os.Geteuid() != 0 {
		lacks(t, "3", "it needs root")
	}
	return parts(t, "3")
}

// Lab is for tests with a real Linux guest. They run in the lab, or on a machine that virtualises.
func Lab(t testing.TB) setup.Parts {
	t.Helper()
	if os.Getenv("MICROVM_TEST_RING") != "4" {
		t.Skip("it needs a host that runs a real guest (run: make test-e2e)")
	}
	return parts(t, "4")
}

// parts returns where things are, and logs which firecracker that is: the runner reads it.
func parts(t testing.TB, ring string) setup.Parts {
	t.Helper()
	cache, err := setup.DefaultCache()
	if err != nil {
		lacks(t, ring, err.Error())
	}
	p, err := setup.Find(cache)
	if err != nil {
		lacks(t, ring, err.Error())
	}
	if other := os.Getenv("MICROVM_TEST_FIRECRACKER"); other != "" {
		p.Firecracker, p.Jailer = other, Jailer(other)
	}
	for name, part := range map[string]*string{"MICROVM_TEST_AGENT": &p.Agent, "MICROVM_TEST_MICROVM": &p.Microvm, "MICROVM_TEST_BUSYBOX": &p.Busybox} {
		if path := os.Getenv(name); path != "" {
			*part = path
		}
	}
	version, err := exec.Command(p.Firecracker, "--version").Output()
	if err != nil {
		lacks(t, ring, err.Error())
	}
	line, _, _ := strings.Cut(string(version), "\n")
	t.Logf("%s%s: %s", Tested, line, p.Firecracker)
	return p
}

// Tested begins what a test logs of the firecracker that it tests: its version, and its path.
const Tested = "tested: "

// Jailer returns the jailer beside a firecracker: of the same name, as in a release's archive, where both have their version in it.
func Jailer(firecracker string) string {
	dir, name := filepath.Split(firecracker)
	return filepath.Join(dir, strings.Replace(name, "firecracker", "jailer", 1))
}

func lacks(t testing.TB, ring, reason string) {
	t.Helper()
	if os.Getenv("MICROVM_TEST_RING") == ring {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
