//go:build linux

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLayerIsTheDiskUnlessMemoryIsAskedFor(t *testing.T) {
	for cmdline, want := range map[string]string{
		"":                                       layerDevice,
		"console=ttyS0 quiet\n":                  layerDevice,
		"microvm.layer=disk":                     layerDevice,
		"quiet microvm.layer=tmpfs panic=1\n":    "tmpfs",
		"xmicrovm.layer=tmpfs":                   layerDevice,
		"microvm.layer=tmpfs microvm.layer=disk": layerDevice,
	} {
		if got, err := layerOf(cmdline); err != nil || got.source != want || got.target != "/layer" {
			t.Errorf("%q: %+v, %v; want %s", cmdline, got, err, want)
		}
	}
	for _, cmdline := range []string{"microvm.layer=", "microvm.layer=Tmpfs", "microvm.layer=tmpfs,size=1"} {
		if got, err := layerOf(cmdline); err == nil || !strings.Contains(err.Error(), "disk or tmpfs") {
			t.Errorf("%q: %+v, %v", cmdline, got, err)
		}
	}
}

func TestDisksAreWaitedForAndMemoryIsNot(t *testing.T) {
	late := filepath.Join(t.TempDir(), "vdb")
	disk := mounting{source: late, kind: "ext4"}
	if err := disk.awaitDisk(time.Millisecond); err == nil || !strings.Contains(err.Error(), late) {
		t.Errorf("a disk that never comes: %v", err)
	}
	if err := (mounting{source: "tmpfs", kind: "tmpfs"}).awaitDisk(0); err != nil {
		t.Errorf("memory: %v", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- disk.awaitDisk(20 * time.Second) }()
	if err := os.WriteFile(late, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("a disk that is late: %v", err)
	}
}

func TestAListOfModulesIsReadToItsEnd(t *testing.T) {
	dir := t.TempDir()
	list := func(text string) string {
		path := filepath.Join(dir, "modules")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, path := range []string{filepath.Join(dir, "no-list"), list(""), list("\n \n")} {
		if err := loadModules(path); err != nil {
			t.Errorf("nothing to load: %v", err)
		}
	}
	if err := loadModules(list("\n" + strings.Repeat("a", 1<<20) + "\n")); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a line without end: %v", err)
	}
	if err := loadModules(list("\n/no/such.ko\n")); err == nil || !strings.Contains(err.Error(), "/no/such.ko") {
		t.Errorf("a module that is not there: %v", err)
	}
}
