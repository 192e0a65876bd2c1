//go:build linux

package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// vmm is a Firecracker of a test, in a directory and a network namespace of its own.
type vmm struct {
	*Client
	dir     string
	version Version
}

// spawn starts one in dir, which holds a kernel that halts, a disk, and files for log and metrics.
func spawn(t *testing.T, dir string, args ...string) vmm {
	t.Helper()
	p := ring.Real(t)
	for name, content := range map[string][]byte{"kernel": tinyguest.Kernel(tinyguest.Program{Text: "booted"}), "disk": make([]byte, 4096), "log": nil, "metrics": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "api.sock")
	os.Remove(socket) // of the VMM before
	os.Remove(filepath.Join(dir, "vsock"))
	command := exec.Command(p.Firecracker, append([]string{"--api-sock", "api.sock", "--id", "test"}, args...)...)
	command.Dir, command.SysProcAttr = dir, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { command.Wait(); close(ended) }()
	client := NewUnix(socket)
	t.Cleanup(func() {
		client.Close()
		command.Process.Kill()
		<-ended
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		version, err := client.GetVersion(ctx)
		if err == nil {
			return vmm{Client: client, dir: dir, version: version}
		}
		if !errors.Is(err, ErrGone) {
			t.Fatal(err)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ended:
			t.Fatal("the VMM has ended")
		}
	}
}

// must fails the test when a call was refused.
func must(t *testing.T, calls ...error) {
	t.Helper()
	if err := errors.Join(calls...); err != nil {
		t.Fatal(err)
	}
}

// refused says whether a call was refused by the VMM, with words.
func refused(t *testing.T, err error) bool {
	t.Helper()
	fault := (*Fault)(nil)
	if err != nil && (!errors.As(err, &fault) || fault.Status != 400 || fault.Message == "") {
		t.Errorf("%v, want a fault with words", err)
	}
	return err != nil
}

func text(t *testing.T, value any) string {
	t.Helper()
	content, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// configure makes all calls that may come before the start, and returns what GET /vm/config is to say.
func (v vmm) configure(t *testing.T) ConfigFile {
	t.Helper()
	ctx := t.Context()
	bucket := &RateLimiter{Bandwidth: &TokenBucket{Size: 1 << 20, OneTimeBurst: 1 << 10, RefillTime: 100}, Ops: &TokenBucket{Size: 10, RefillTime: 1000}}
	want := ConfigFile{
		BootSource:        BootSource{KernelImagePath: "kernel", BootArgs: "console=ttyS0"},
		Drives:            []Drive{{DriveID: "d", PathOnHost: "disk", IsReadOnly: true, CacheType: "Writeback", IOEngine: "Sync", RateLimiter: bucket}},
		MachineConfig:     MachineConfig{VCPUCount: 1, MemSizeMiB: 64, TrackDirtyPages: true, HugePages: "None"},
		Balloon:           &Balloon{AmountMiB: 8, DeflateOnOOM: true, StatsPollingIntervalS: 1},
		NetworkInterfaces: []NetworkInterface{{IfaceID: "eth0", HostDevName: "tap0", GuestMAC: "02:00:00:00:00:01", RxRateLimiter: bucket}},
		Vsock:             &Vsock{GuestCID: 3, UDSPath: "vsock"},
		Entropy:           &Entropy{RateLimiter: bucket},
		MMDSConfig:        &MMDSConfig{NetworkInterfaces: []string{"eth0"}, Version: "V2", IPv4Address: "169.254.170.2"},
	}
	asIs := "0b" + strings.Repeat("x", 32)
	must(t,
		v.PutLogger(ctx, Logger{LogPath: "log", Level: "Debug", ShowLevel: true, ShowLogOrigin: true}),
		v.PutLogger(ctx, Logger{Level: "Info"}),
		v.PutMetrics(ctx, Metrics{MetricsPath: "metrics"}),
		v.PutMachineConfig(ctx, MachineConfig{VCPUCount: 2, MemSizeMiB: 128, TrackDirtyPages: true}),
		v.PatchMachineConfig(ctx, MachineConfigPatch{VCPUCount: 1, MemSizeMiB: 64, TrackDirtyPages: new(true)}),
		v.PutCPUConfig(ctx, CPUConfig{CPUIDModifiers: []CPUIDLeafModifier{{Leaf: "0x1", Subleaf: "0x0", Modifiers: []CPUIDRegisterModifier{{Register: "ecx", Bitmap: asIs}}}}}),
		v.PutBootSource(ctx, want.BootSource),
		v.PutDrive(ctx, want.Drives[0]),
		v.PutNetworkInterface(ctx, want.NetworkInterfaces[0]),
		v.PutVsock(ctx, *want.Vsock),
		v.PutEntropy(ctx, *want.Entropy),
		v.PutBalloon(ctx, *want.Balloon),
		v.PutMMDSConfig(ctx, *want.MMDSConfig),
		v.PutMMDS(ctx, map[string]any{"a": map[string]int{"b": 1, "c": 2}}),
	)
	return want
}

func TestRealConfiguration(t *testing.T) {
	v, ctx := spawn(t, t.TempDir()), t.Context()
	machine, err := v.GetMachineConfig(ctx)
	if want := (MachineConfig{VCPUCount: 1, MemSizeMiB: 128, HugePages: "None"}); err != nil || machine != want {
		t.Errorf("GetMachineConfig = %+v, %v, want %+v", machine, err, want)
	}
	if _, err := v.GetBalloon(ctx); !refused(t, err) {
		t.Error("there is a balloon before it was put")
	}
	want := v.configure(t)
	for _, level := range []string{"Off", "Trace", "Debug", "Info", "Warn", "Error"} {
		must(t, v.PutLogger(ctx, Logger{Level: level}))
	}
	if !refused(t, v.PutLogger(ctx, Logger{Level: "Loud"})) {
		t.Error("there is a level Loud")
	}
	if !refused(t, v.PutMetrics(ctx, Metrics{MetricsPath: "metrics"})) {
		t.Error("metrics can be set twice")
	}
	instance, err := v.GetInstance(ctx)
	if wanted := (Instance{AppName: "Firecracker", ID: "test", State: "Not started", Version: v.version.String()}); err != nil || instance != wanted {
		t.Errorf("GetInstance = %+v, %v, want %+v", instance, err, wanted)
	}
	for _, state := range []string{"Not started", "Running"} {
		got, err := v.GetVMConfig(ctx)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: GetVMConfig = %s, %v\nwant %s", state, text(t, got), err, text(t, want))
		}
		if state == "Not started" {
			must(t, v.Action(ctx, InstanceStart))
		}
	}
	if machine, err = v.GetMachineConfig(ctx); err != nil || machine != want.MachineConfig {
		t.Errorf("GetMachineConfig = %+v, %v, want %+v", machine, err, want.MachineConfig)
	}
	if !refused(t, v.PutMachineConfig(ctx, MachineConfig{VCPUCount: 1, MemSizeMiB: 64})) {
		t.Error("a started machine can be configured")
	}
}

func TestRealStarted(t *testing.T) {
	v, ctx := spawn(t, t.TempDir()), t.Context()
	v.configure(t)
	if !refused(t, v.PatchVM(ctx, VMPaused)) || !refused(t, v.Action(ctx, FlushMetrics)) {
		t.Error("what is not started can be paused, or flushes metrics")
	}
	must(t, v.Action(ctx, InstanceStart))
	must(t,
		v.PatchDrive(ctx, DrivePatch{DriveID: "d", PathOnHost: "disk", RateLimiter: &RateLimiter{Ops: &TokenBucket{}}}),
		v.PatchNetworkInterface(ctx, NetworkInterfacePatch{IfaceID: "eth0", TxRateLimiter: &RateLimiter{Ops: &TokenBucket{Size: 1, RefillTime: 1}}}),
		v.PatchMMDS(ctx, map[string]any{"a": map[string]any{"b": nil, "d": 3}}),
		v.Action(ctx, FlushMetrics),
		v.Action(ctx, SendCtrlAltDel),
	)
	var data map[string]map[string]int
	if err := v.GetMMDS(ctx, &data); err != nil || !reflect.DeepEqual(data, map[string]map[string]int{"a": {"c": 2, "d": 3}}) {
		t.Errorf("GetMMDS = %v, %v", data, err)
	}
	metrics, err := os.ReadFile(filepath.Join(v.dir, "metrics"))
	if err != nil || !json.Valid(metrics[:max(0, strings.Index(string(metrics), "\n"))]) {
		t.Errorf("metrics = %.100q, %v, want a line of JSON", metrics, err)
	}
	balloon, err := v.GetBalloon(ctx)
	if want := (Balloon{AmountMiB: 8, DeflateOnOOM: true, StatsPollingIntervalS: 1}); err != nil || balloon != want {
		t.Errorf("GetBalloon = %+v, %v", balloon, err)
	}
	must(t, v.PatchVM(ctx, VMPaused), v.PatchVM(ctx, VMPaused))
	if instance, err := v.GetInstance(ctx); err != nil || instance.State != "Paused" {
		t.Errorf("GetInstance = %+v, %v", instance, err)
	}
	must(t, v.PatchVM(ctx, VMResumed))
	if instance, err := v.GetInstance(ctx); err != nil || instance.State != "Running" {
		t.Errorf("GetInstance = %+v, %v", instance, err)
	}
}

func TestRealSnapshot(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	v := spawn(t, dir)
	want := v.configure(t)
	must(t, v.Action(ctx, InstanceStart))
	if !refused(t, v.CreateSnapshot(ctx, SnapshotCreate{SnapshotPath: "state", MemFilePath: "memory"})) {
		t.Error("what is not paused can be saved")
	}
	must(t,
		v.PatchVM(ctx, VMPaused),
		v.CreateSnapshot(ctx, SnapshotCreate{SnapshotPath: "state", MemFilePath: "memory"}),
		v.PatchVM(ctx, VMResumed), v.PatchVM(ctx, VMPaused),
		v.CreateSnapshot(ctx, SnapshotCreate{SnapshotType: SnapshotDiff, SnapshotPath: "state2", MemFilePath: "memory2"}),
	)
	load := SnapshotLoad{
		SnapshotPath: "state", MemBackend: &MemBackend{BackendType: "File", BackendPath: "memory"}, EnableDiffSnapshots: true, ResumeVM: true,
		NetworkOverrides: []NetworkOverride{{IfaceID: "eth0", HostDevName: "tap1"}},
	}
	if Check(v.version, load) != nil {
		load.NetworkOverrides = nil
	}

	used := spawn(t, dir)
	must(t, used.PutMachineConfig(ctx, MachineConfig{VCPUCount: 1, MemSizeMiB: 64}))
	if !refused(t, used.LoadSnapshot(ctx, load)) {
		t.Error("what is configured can become a snapshot")
	}

	fresh := spawn(t, dir)
	must(t, fresh.PutLogger(ctx, Logger{LogPath: "log"}), fresh.PutMetrics(ctx, Metrics{MetricsPath: "metrics"}))
	both := load
	both.MemFilePath = "memory"
	if !refused(t, fresh.LoadSnapshot(ctx, both)) {
		t.Error("memory can come from two places")
	}
	must(t, fresh.LoadSnapshot(ctx, load))
	if instance, err := fresh.GetInstance(ctx); err != nil || instance.State != "Running" {
		t.Errorf("GetInstance = %+v, %v", instance, err)
	}
	for _, override := range load.NetworkOverrides {
		want.NetworkInterfaces[0].HostDevName = override.HostDevName
	}
	if config, err := fresh.GetVMConfig(ctx); err != nil || !reflect.DeepEqual(config, want) {
		t.Errorf("GetVMConfig after a restore = %s, %v\nwant %s", text(t, config), err, text(t, want))
	}
	must(t, // its dirty pages are tracked
		fresh.PatchVM(ctx, VMPaused),
		fresh.CreateSnapshot(ctx, SnapshotCreate{SnapshotType: SnapshotDiff, SnapshotPath: "state3", MemFilePath: "memory3"}),
	)
}
