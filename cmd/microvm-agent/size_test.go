//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// most is how large the agent may be, stripped: it is unpacked into the memory of each guest.
const most = 8 << 20

// TestSize builds the agent as the Makefile does.
func TestSize(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "make", "-C", "../..", "--no-print-directory", "build", "BIN="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	info, err := os.Stat(filepath.Join(dir, "microvm-agent"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > most || info.Size() < most/16 {
		t.Errorf("the agent has %d bytes, want at most %d", info.Size(), most)
	}
}
