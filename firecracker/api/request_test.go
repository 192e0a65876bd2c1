package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
)

// requests is a call of every method of Client, with what is to go over the wire.
var requests = []struct {
	method, path, body string
	call               func(context.Context, *Client) error
}{
	{"GET", "/", "", func(ctx context.Context, c *Client) error { _, err := c.GetInstance(ctx); return err }},
	{"GET", "/vm/config", "", func(ctx context.Context, c *Client) error { _, err := c.GetVMConfig(ctx); return err }},
	{"PATCH", "/vm", `{"state":"Paused"}`, func(ctx context.Context, c *Client) error { return c.PatchVM(ctx, VMPaused) }},
	{"PUT", "/actions", `{"action_type":"InstanceStart"}`, func(ctx context.Context, c *Client) error { return c.Action(ctx, InstanceStart) }},
	{"PUT", "/machine-config", `{"vcpu_count":2,"mem_size_mib":256,"smt":true,"huge_pages":"2M"}`, func(ctx context.Context, c *Client) error {
		return c.PutMachineConfig(ctx, MachineConfig{VCPUCount: 2, MemSizeMiB: 256, SMT: true, HugePages: "2M"})
	}},
	{"PATCH", "/machine-config", `{"smt":false}`, func(ctx context.Context, c *Client) error {
		return c.PatchMachineConfig(ctx, MachineConfigPatch{SMT: new(bool)})
	}},
	{"GET", "/machine-config", "", func(ctx context.Context, c *Client) error { _, err := c.GetMachineConfig(ctx); return err }},
	{"PUT", "/boot-source", `{"kernel_image_path":"k","boot_args":"a"}`, func(ctx context.Context, c *Client) error {
		return c.PutBootSource(ctx, BootSource{KernelImagePath: "k", BootArgs: "a"})
	}},
	{"PUT", "/cpu-config", `{"msr_modifiers":[{"addr":"0x1","bitmap":"0b1x"}]}`, func(ctx context.Context, c *Client) error {
		return c.PutCPUConfig(ctx, CPUConfig{MSRModifiers: []MSRModifier{{Addr: "0x1", Bitmap: "0b1x"}}})
	}},
	{"PUT", "/drives/a%2F..%2Fb%20c%0D%0A", `{"drive_id":"a/../b c\r\n","path_on_host":"p","is_root_device":true,"rate_limiter":{"bandwidth":{"size":1,"refill_time":2}}}`, func(ctx context.Context, c *Client) error {
		return c.PutDrive(ctx, Drive{DriveID: "a/../b c\r\n", PathOnHost: "p", IsRootDevice: true, RateLimiter: &RateLimiter{Bandwidth: &TokenBucket{Size: 1, RefillTime: 2}}})
	}},
	{"PATCH", "/drives/d", `{"drive_id":"d","path_on_host":"p"}`, func(ctx context.Context, c *Client) error {
		return c.PatchDrive(ctx, DrivePatch{DriveID: "d", PathOnHost: "p"})
	}},
	{"DELETE", "/drives/d", "", func(ctx context.Context, c *Client) error { return c.DeleteDrive(ctx, "d") }},
	{"PUT", "/pmem/p", `{"id":"p","path_on_host":"f","read_only":true}`, func(ctx context.Context, c *Client) error {
		return c.PutPmem(ctx, Pmem{ID: "p", PathOnHost: "f", ReadOnly: true})
	}},
	{"PATCH", "/pmem/p", `{"id":"p","rate_limiter":{"ops":{"size":1,"one_time_burst":3,"refill_time":2}}}`, func(ctx context.Context, c *Client) error {
		return c.PatchPmem(ctx, PmemPatch{ID: "p", RateLimiter: &RateLimiter{Ops: &TokenBucket{Size: 1, OneTimeBurst: 3, RefillTime: 2}}})
	}},
	{"DELETE", "/pmem/p", "", func(ctx context.Context, c *Client) error { return c.DeletePmem(ctx, "p") }},
	{"PUT", "/network-interfaces/eth0", `{"iface_id":"eth0","host_dev_name":"tap0","guest_mac":"02:00:00:00:00:01","mtu":1400}`, func(ctx context.Context, c *Client) error {
		return c.PutNetworkInterface(ctx, NetworkInterface{IfaceID: "eth0", HostDevName: "tap0", GuestMAC: "02:00:00:00:00:01", MTU: 1400})
	}},
	{"PATCH", "/network-interfaces/eth0", `{"iface_id":"eth0"}`, func(ctx context.Context, c *Client) error {
		return c.PatchNetworkInterface(ctx, NetworkInterfacePatch{IfaceID: "eth0"})
	}},
	{"DELETE", "/network-interfaces/eth0", "", func(ctx context.Context, c *Client) error { return c.DeleteNetworkInterface(ctx, "eth0") }},
	{"PUT", "/vsock", `{"guest_cid":3,"uds_path":"v"}`, func(ctx context.Context, c *Client) error { return c.PutVsock(ctx, Vsock{GuestCID: 3, UDSPath: "v"}) }},
	{"PUT", "/balloon", `{"amount_mib":0,"deflate_on_oom":true,"stats_polling_interval_s":1}`, func(ctx context.Context, c *Client) error {
		return c.PutBalloon(ctx, Balloon{DeflateOnOOM: true, StatsPollingIntervalS: 1})
	}},
	{"PATCH", "/balloon", `{"amount_mib":0}`, func(ctx context.Context, c *Client) error { return c.PatchBalloon(ctx, BalloonPatch{}) }},
	{"GET", "/balloon", "", func(ctx context.Context, c *Client) error { _, err := c.GetBalloon(ctx); return err }},
	{"GET", "/balloon/statistics", "", func(ctx context.Context, c *Client) error { _, err := c.GetBalloonStats(ctx); return err }},
	{"PATCH", "/balloon/statistics", `{"stats_polling_interval_s":2}`, func(ctx context.Context, c *Client) error {
		return c.PatchBalloonStats(ctx, BalloonStatsPatch{StatsPollingIntervalS: 2})
	}},
	{"PATCH", "/balloon/hinting/start", `{"acknowledge_on_stop":false}`, func(ctx context.Context, c *Client) error {
		return c.StartBalloonHinting(ctx, BalloonHintingStart{AcknowledgeOnStop: new(bool)})
	}},
	{"GET", "/balloon/hinting/status", "", func(ctx context.Context, c *Client) error { _, err := c.GetBalloonHinting(ctx); return err }},
	{"PATCH", "/balloon/hinting/stop", "{}", func(ctx context.Context, c *Client) error { return c.StopBalloonHinting(ctx) }},
	{"PUT", "/mmds/config", `{"network_interfaces":["eth0"],"version":"V2"}`, func(ctx context.Context, c *Client) error {
		return c.PutMMDSConfig(ctx, MMDSConfig{NetworkInterfaces: []string{"eth0"}, Version: "V2"})
	}},
	{"PUT", "/mmds", `{"a":1}`, func(ctx context.Context, c *Client) error { return c.PutMMDS(ctx, map[string]int{"a": 1}) }},
	{"PATCH", "/mmds", `{"a":null}`, func(ctx context.Context, c *Client) error { return c.PatchMMDS(ctx, map[string]any{"a": nil}) }},
	{"GET", "/mmds", "", func(ctx context.Context, c *Client) error { return c.GetMMDS(ctx, &map[string]any{}) }},
	{"PUT", "/logger", `{"log_path":"l","level":"Debug","show_level":true}`, func(ctx context.Context, c *Client) error {
		return c.PutLogger(ctx, Logger{LogPath: "l", Level: "Debug", ShowLevel: true})
	}},
	{"PUT", "/metrics", `{"metrics_path":"m"}`, func(ctx context.Context, c *Client) error { return c.PutMetrics(ctx, Metrics{MetricsPath: "m"}) }},
	{"PUT", "/serial", `{"serial_out_path":"s","rate_limiter":{"size":1,"refill_time":1}}`, func(ctx context.Context, c *Client) error {
		return c.PutSerial(ctx, Serial{SerialOutPath: "s", RateLimiter: &TokenBucket{Size: 1, RefillTime: 1}})
	}},
	{"PUT", "/entropy", `{}`, func(ctx context.Context, c *Client) error { return c.PutEntropy(ctx, Entropy{}) }},
	{"PUT", "/hotplug/memory", `{"total_size_mib":1024}`, func(ctx context.Context, c *Client) error {
		return c.PutMemoryHotplug(ctx, MemoryHotplug{TotalSizeMiB: 1024})
	}},
	{"PATCH", "/hotplug/memory", `{"requested_size_mib":0}`, func(ctx context.Context, c *Client) error {
		return c.PatchMemoryHotplug(ctx, MemoryHotplugPatch{})
	}},
	{"GET", "/hotplug/memory", "", func(ctx context.Context, c *Client) error { _, err := c.GetMemoryHotplug(ctx); return err }},
	{"PUT", "/snapshot/create", `{"snapshot_type":"Diff","snapshot_path":"s","mem_file_path":"m"}`, func(ctx context.Context, c *Client) error {
		return c.CreateSnapshot(ctx, SnapshotCreate{SnapshotType: SnapshotDiff, SnapshotPath: "s", MemFilePath: "m"})
	}},
	{"PUT", "/snapshot/load", `{"snapshot_path":"s","mem_backend":{"backend_type":"File","backend_path":"m"},"track_dirty_pages":true,"resume_vm":true,"network_overrides":[{"iface_id":"eth0","host_dev_name":"tap1"}],"vsock_override":{"uds_path":"v"},"clock_realtime":true}`, func(ctx context.Context, c *Client) error {
		return c.LoadSnapshot(ctx, SnapshotLoad{
			SnapshotPath: "s", MemBackend: &MemBackend{BackendType: "File", BackendPath: "m"}, TrackDirtyPages: true, ResumeVM: true,
			NetworkOverrides: []NetworkOverride{{IfaceID: "eth0", HostDevName: "tap1"}}, VsockOverride: &VsockOverride{UDSPath: "v"}, ClockRealtime: true,
		})
	}},
	{"GET", "/version", "", func(ctx context.Context, c *Client) error { _, err := c.GetVersion(ctx); return err }},
}

func TestRequests(t *testing.T) {
	var method, path, body string
	client, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		method, path, body = r.Method, r.RequestURI, string(text)
		if r.Method == "GET" {
			fmt.Fprint(w, `{"firecracker_version":"1.12.1"}`)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	for _, request := range requests {
		if err := request.call(t.Context(), client); err != nil {
			t.Errorf("%s %s: %v", request.method, request.path, err)
		}
		if method != request.method || path != request.path || body != request.body {
			t.Errorf("went over the wire: %s %s %s\nwant:                   %s %s %s", method, path, body, request.method, request.path, request.body)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"id":"x"}`))
	f.Add(400, []byte(`{"fault_message":"no"}`))
	f.Add(500, []byte(`<html>`))
	f.Fuzz(func(t *testing.T, status int, text []byte) {
		var config ConfigFile
		err := parse(status, text, &config)
		if err == nil && (status < 200 || status > 299) {
			t.Error("a refusal is taken for consent")
		}
		if err == nil && !json.Valid(text) {
			t.Errorf("%q is taken for JSON", text)
		}
	})
}
