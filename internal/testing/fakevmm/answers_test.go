//go:build linux

package fakevmm

import (
	"slices"
	"testing"
)

// configured are machines of which everything is asked.
var configured = map[string][]call{
	"nothing":  nil,
	"a kernel": {kernel},
	"all": {
		put("/machine-config", `{"vcpu_count":2,"mem_size_mib":256,"smt":true,"track_dirty_pages":true}`),
		put("/boot-source", `{"kernel_image_path":"kernel","boot_args":"quiet","initrd_path":"disk"}`), disk, root,
		put("/drives/d2", `{"drive_id":"d2","path_on_host":"disk","is_root_device":false,"cache_type":"Writeback","partuuid":"0eaa91a0-01","rate_limiter":{"bandwidth":{"size":10,"one_time_burst":5,"refill_time":100},"ops":{"size":0,"refill_time":0}}}`),
		tap, put("/network-interfaces/eth1", `{"iface_id":"eth1","host_dev_name":"tap1","rx_rate_limiter":{"ops":{"size":1,"refill_time":1}},"tx_rate_limiter":{}}`),
		put("/vsock", `{"guest_cid":3,"uds_path":"vsock","vsock_id":"v"}`), balloon, put("/mmds/config", `{"network_interfaces":["eth0"],"version":"V2"}`),
		put("/mmds", `{"a":{"b":[1,2.5,"x",null,true]},"c":1}`), patch("/mmds", `{"a":{"d":"e"},"c":null}`), put("/entropy", `{"rate_limiter":{"bandwidth":{"size":1,"refill_time":1}}}`),
		put("/logger", `{"log_path":"log","level":"Info"}`), put("/metrics", `{"metrics_path":"metrics"}`), put("/cpu-config", `{"kvm_capabilities":["!7"]}`),
	},
	"all of them again": {
		disk, root, tap, put("/network-interfaces/eth1", `{"iface_id":"eth1","host_dev_name":"tap1"}`), put("/mmds/config", `{"network_interfaces":["eth0","eth1"],"ipv4_address":"169.254.1.2"}`), tap,
		put("/drives/d1", `{"drive_id":"d1","path_on_host":"log","is_root_device":false,"io_engine":"Sync"}`), put("/drives/r", `{"drive_id":"r","path_on_host":"disk","is_root_device":false}`),
		put("/machine-config", `{"vcpu_count":2,"mem_size_mib":256,"smt":true,"cpu_template":"None"}`), put("/machine-config", `{"vcpu_count":1,"mem_size_mib":128}`), patch("/machine-config", `{"huge_pages":"2M"}`),
		put("/mmds", `"text"`),
	},
	"metadata of no NIC": {put("/mmds", `{"a":1}`), patch("/mmds", `{"a":null}`)},
	"a template":         {patch("/machine-config", `{"cpu_template":"T2"}`), put("/machine-config", `{"vcpu_count":1,"mem_size_mib":128}`)},
	"a running machine":  {kernel, disk, put("/balloon", `{"amount_mib":64,"deflate_on_oom":true,"stats_polling_interval_s":1}`), start, patch("/balloon/statistics", `{"stats_polling_interval_s":5}`), patch("/drives/d1", `{"drive_id":"d1","path_on_host":"log"}`)},
	"limits patched": {kernel, disk, tap, start, patch("/drives/d1", `{"drive_id":"d1","rate_limiter":{"ops":{"size":3,"refill_time":4},"bandwidth":{"size":3,"one_time_burst":7,"refill_time":4}}}`), patch("/drives/d1", `{"drive_id":"d1","rate_limiter":{"ops":{"size":0,"refill_time":0}}}`),
		patch("/network-interfaces/eth0", `{"iface_id":"eth0","rx_rate_limiter":{"bandwidth":{"size":1,"refill_time":1}}}`)},
	"three NICs":        {tap, put("/network-interfaces/eth1", `{"iface_id":"eth1","host_dev_name":"tap1"}`), put("/network-interfaces/eth2", `{"iface_id":"eth2","host_dev_name":"tap2"}`), tap},
	"a root put last":   {disk, put("/drives/d2", `{"drive_id":"d2","path_on_host":"disk","is_root_device":false}`), put("/drives/d2", `{"drive_id":"d2","path_on_host":"disk","is_root_device":true}`)},
	"a paused machine":  {kernel, start, pause},
	"a resumed machine": {kernel, start, pause, patch("/vm", `{"state":"Resumed"}`)},
}

// What is configured is told in the same words by both.
func TestRealAnswersAlike(t *testing.T) {
	l := newLab(t)
	l.bodies = true
	for name, sequence := range configured {
		for _, path := range []string{"/", "/version", "/vm/config", "/machine-config", "/mmds", "/balloon", "/balloon/statistics"} {
			if real, fake := l.both(t, append(slices.Clone(sequence), get(path))...); real != fake {
				t.Errorf("%s, GET %s\nreal: %s\nfake: %s", name, path, real, fake)
			}
		}
	}
}
