//go:build linux

package api_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/tangle-network/microvm-runtime/firecracker/api"
)

// What Check lets pass the VMM takes, and what Check refuses the VMM refuses for the same reason: it knows no such field or path.
func TestRealLacks(t *testing.T) {
	v := spawn(t, t.TempDir())
	for _, row := range []struct {
		name      string
		old, late any // The late one has what some versions lack.
		put       func(ctx context.Context, value any) error
	}{
		{
			"mtu", NetworkInterface{IfaceID: "eth0", HostDevName: "tap0"}, NetworkInterface{IfaceID: "eth0", HostDevName: "tap0", MTU: 1400},
			func(ctx context.Context, value any) error {
				return v.PutNetworkInterface(ctx, value.(NetworkInterface))
			},
		}, {
			"imds_compat", MMDSConfig{NetworkInterfaces: []string{"eth0"}}, MMDSConfig{NetworkInterfaces: []string{"eth0"}, IMDSCompat: true},
			func(ctx context.Context, value any) error { return v.PutMMDSConfig(ctx, value.(MMDSConfig)) },
		}, {
			"free_page_hinting", Balloon{}, Balloon{FreePageHinting: true},
			func(ctx context.Context, value any) error { return v.PutBalloon(ctx, value.(Balloon)) },
		}, {
			"free_page_reporting", Balloon{}, Balloon{FreePageReporting: true},
			func(ctx context.Context, value any) error { return v.PutBalloon(ctx, value.(Balloon)) },
		}, {
			"serial", nil, Serial{SerialOutPath: "console"},
			func(ctx context.Context, value any) error { return v.PutSerial(ctx, value.(Serial)) },
		}, {
			"pmem", nil, Pmem{ID: "p", PathOnHost: "disk"},
			func(ctx context.Context, value any) error { return v.PutPmem(ctx, value.(Pmem)) },
		}, {
			"hotplug", nil, MemoryHotplug{TotalSizeMiB: 1024},
			func(ctx context.Context, value any) error { return v.PutMemoryHotplug(ctx, value.(MemoryHotplug)) },
		},
	} {
		if row.old != nil {
			must(t, Check(v.version, row.old), row.put(t.Context(), row.old))
		}
		lacks, err := Check(v.version, row.late), row.put(t.Context(), row.late)
		if unsupported := (*UnsupportedError)(nil); lacks != nil && !errors.As(lacks, &unsupported) {
			t.Errorf("%s: Check = %v", row.name, lacks)
		}
		if refused(t, err) != (lacks != nil) {
			t.Errorf("%s: the VMM says %v, Check %v", row.name, err, lacks)
		}
		if err != nil && !strings.Contains(err.Error(), "unknown field `"+row.name+"`") && !strings.Contains(err.Error(), "Invalid request method") {
			t.Errorf("%s: refused for another reason: %v", row.name, err)
		}
	}
}

// A snapshot that can't be loaded may end the VMM: each field has one of its own.
func TestRealLacksInSnapshotLoad(t *testing.T) {
	backend := &MemBackend{BackendType: "File", BackendPath: "none"}
	for name, load := range map[string]SnapshotLoad{
		"":                  {ResumeVM: true, EnableDiffSnapshots: true},
		"track_dirty_pages": {TrackDirtyPages: true},
		"network_overrides": {NetworkOverrides: []NetworkOverride{{IfaceID: "eth0", HostDevName: "tap0"}}},
		"vsock_override":    {VsockOverride: &VsockOverride{UDSPath: "vsock"}},
		"clock_realtime":    {ClockRealtime: true},
	} {
		v := spawn(t, t.TempDir())
		load.SnapshotPath, load.MemBackend = "none", backend
		lacks, err := Check(v.version, load), v.LoadSnapshot(t.Context(), load)
		if !refused(t, err) || strings.Contains(err.Error(), "unknown field") != (lacks != nil) || lacks != nil && !strings.Contains(err.Error(), name) {
			t.Errorf("%s: the VMM says %v, Check %v", name, err, lacks)
		}
	}
}

func TestRealCapabilities(t *testing.T) {
	v, ctx := spawn(t, t.TempDir()), t.Context()
	agrees := func(c Capability, err error) {
		t.Helper()
		if lacks := v.version.Supports(c); refused(t, err) != (lacks != nil) {
			t.Errorf("%s: the VMM says %v, the table %v", c.Name, err, lacks)
		}
	}
	agrees(LogFilesMade, v.PutLogger(ctx, Logger{LogPath: "made"}))
	must(t, v.PutBalloon(ctx, Balloon{AmountMiB: 8}), v.PutMachineConfig(ctx, MachineConfig{VCPUCount: 1, MemSizeMiB: 64}))
	agrees(HugePagesBalloon, v.PutMachineConfig(ctx, MachineConfig{VCPUCount: 1, MemSizeMiB: 64, HugePages: "2M"}))
}

// A drive of a back end is not refused for what only a file has, but because nobody serves it.
func TestRealDriveOfBackEnd(t *testing.T) {
	v, ctx := spawn(t, t.TempDir()), t.Context()
	err := v.PutDrive(ctx, Drive{DriveID: "d", Socket: "none"})
	if !refused(t, err) || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("PutDrive = %v", err)
	}
	both := v.PutDrive(ctx, Drive{DriveID: "d", Socket: "none", IsReadOnly: true})
	if !refused(t, both) || strings.Contains(both.Error(), "No such file") {
		t.Errorf("PutDrive of both kinds = %v", both)
	}
}

func TestRealConfigFile(t *testing.T) {
	dir := t.TempDir()
	file := ConfigFile{
		BootSource:    BootSource{KernelImagePath: "kernel", BootArgs: "console=ttyS0"},
		Drives:        []Drive{{DriveID: "d", PathOnHost: "disk", IsReadOnly: true}},
		MachineConfig: MachineConfig{VCPUCount: 1, MemSizeMiB: 64},
		CPUConfig:     &CPUTemplate{Path: "template"},
		Balloon:       &Balloon{AmountMiB: 8},
		Vsock:         &Vsock{GuestCID: 3, UDSPath: "vsock"},
		Entropy:       &Entropy{},
		Logger:        &Logger{LogPath: "log"},
		Metrics:       &Metrics{MetricsPath: "metrics"},
	}
	if err := os.WriteFile(filepath.Join(dir, "template"), []byte(text(t, CPUConfig{KVMCapabilities: []string{"!56"}})), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(text(t, file)), 0o600); err != nil {
		t.Fatal(err)
	}
	v := spawn(t, dir, "--config-file", "config")
	must(t, Check(v.version, file))
	if instance, err := v.GetInstance(t.Context()); err != nil || instance.State != "Running" {
		t.Errorf("GetInstance = %+v, %v", instance, err)
	}
	want := file
	want.CPUConfig, want.Logger, want.Metrics = nil, nil, nil // never told
	want.MachineConfig.HugePages, want.Drives = "None", []Drive{{DriveID: "d", PathOnHost: "disk", IsReadOnly: true, CacheType: "Unsafe", IOEngine: "Sync"}}
	if got, err := v.GetVMConfig(t.Context()); err != nil || text(t, got) != text(t, want) {
		t.Errorf("GetVMConfig = %s, %v\nwant %s", text(t, got), err, text(t, want))
	}

	// A section that it does not know it ignores: Check says so.
	file.MemoryHotplug = &MemoryHotplug{TotalSizeMiB: 1024}
	lacks := Check(v.version, file)
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(text(t, file)), 0o600); err != nil {
		t.Fatal(err)
	}
	v = spawn(t, dir, "--config-file", "config")
	got, err := v.GetVMConfig(t.Context())
	if err != nil || (got.MemoryHotplug == nil) != (lacks != nil) {
		t.Errorf("GetVMConfig with memory-hotplug = %s, %v, Check %v", text(t, got), err, lacks)
	}
}
