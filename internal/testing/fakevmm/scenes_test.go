//go:build linux

package fakevmm

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func put(path, body string) call   { return call{"PUT " + path, path, body} }
func patch(path, body string) call { return call{"PATCH " + path, path, body} }
func get(path string) call         { return call{"GET " + path, path, ""} }

var (
	kernel  = put("/boot-source", `{"kernel_image_path":"kernel"}`)
	start   = put("/actions", `{"action_type":"InstanceStart"}`)
	pause   = patch("/vm", `{"state":"Paused"}`)
	root    = put("/drives/r", `{"drive_id":"r","path_on_host":"disk","is_root_device":true}`)
	disk    = put("/drives/d1", `{"drive_id":"d1","path_on_host":"disk","is_root_device":false,"is_read_only":true}`)
	tap     = put("/network-interfaces/eth0", `{"iface_id":"eth0","host_dev_name":"tap0","guest_mac":"12:34:56:78:9a:BC"}`)
	balloon = put("/balloon", `{"amount_mib":64,"deflate_on_oom":true}`)
)

// scenes are sequences whose last call is refused for what was said before, or for the state of the host, or shows that it isn't.
var scenes = map[string][]call{
	"a second root":                   {root, put("/drives/s", `{"drive_id":"s","path_on_host":"disk","is_root_device":true}`)},
	"the same root":                   {root, root},
	"a root that was another":         {root, disk, put("/drives/d1", `{"drive_id":"d1","path_on_host":"disk","is_root_device":true}`)},
	"a root that is none any more":    {root, put("/drives/r", `{"drive_id":"r","path_on_host":"disk","is_root_device":false}`), put("/drives/s", `{"drive_id":"s","path_on_host":"disk","is_root_device":true}`)},
	"a directory as a drive":          {put("/drives/d1", `{"drive_id":"d1","path_on_host":".","is_root_device":false}`)},
	"a directory as a read-only one":  {put("/drives/d1", `{"drive_id":"d1","path_on_host":".","is_root_device":false,"is_read_only":true}`)},
	"a directory as a kernel":         {put("/boot-source", `{"kernel_image_path":"."}`), start},
	"no kernel":                       {start},
	"an initrd":                       {put("/boot-source", `{"kernel_image_path":"kernel","initrd_path":"disk"}`), start},
	"an empty initrd":                 {put("/boot-source", `{"kernel_image_path":"kernel","initrd_path":"log"}`), start},
	"a directory as an initrd":        {put("/boot-source", `{"kernel_image_path":"kernel","initrd_path":"."}`), start},
	"a kernel of too long a name":     {put("/boot-source", `{"kernel_image_path":"`+strings.Repeat("x", 300)+`"}`)},
	"a zero byte in a body":           {put("/boot-source", "{\x00")},
	"a kernel of zeros":               {put("/boot-source", `{"kernel_image_path":"disk"}`), start},
	"an empty kernel":                 {put("/boot-source", `{"kernel_image_path":"log"}`), start},
	"a start after a refused one":     {put("/boot-source", `{"kernel_image_path":"disk"}`), start, kernel, start},
	"boot arguments too long":         {put("/boot-source", `{"kernel_image_path":"kernel","boot_args":"`+strings.Repeat("x", 2100)+`"}`)},
	"boot arguments as long as can":   {put("/boot-source", `{"kernel_image_path":"kernel","boot_args":"`+strings.Repeat("x", 2047)+`"}`)},
	"boot arguments not of ASCII":     {put("/boot-source", `{"kernel_image_path":"kernel","boot_args":"ü"}`)},
	"boot arguments of two lines":     {put("/boot-source", `{"kernel_image_path":"kernel","boot_args":"a\nb"}`)},
	"a MAC twice":                     {tap, put("/network-interfaces/eth1", `{"iface_id":"eth1","host_dev_name":"tap1","guest_mac":"12:34:56:78:9a:bc"}`)},
	"a MAC twice of one":              {tap, tap},
	"a TAP twice":                     {tap, put("/network-interfaces/eth1", `{"iface_id":"eth1","host_dev_name":"tap0"}`)},
	"a TAP that another has left":     {tap, put("/network-interfaces/eth0", `{"iface_id":"eth0","host_dev_name":"tap1"}`), put("/network-interfaces/eth1", `{"iface_id":"eth1","host_dev_name":"tap0"}`)},
	"a balloon over the memory":       {put("/balloon", `{"amount_mib":129,"deflate_on_oom":true}`)},
	"a balloon of all memory":         {put("/balloon", `{"amount_mib":128,"deflate_on_oom":true}`)},
	"memory under the balloon":        {balloon, put("/machine-config", `{"vcpu_count":1,"mem_size_mib":63}`)},
	"memory patched under it":         {balloon, patch("/machine-config", `{"mem_size_mib":63}`)},
	"memory of the balloon":           {balloon, patch("/machine-config", `{"mem_size_mib":64}`)},
	"huge pages and a balloon":        {balloon, patch("/machine-config", `{"huge_pages":"2M"}`)},
	"a balloon and huge pages":        {patch("/machine-config", `{"huge_pages":"2M"}`), balloon},
	"odd memory of huge pages":        {put("/machine-config", `{"vcpu_count":1,"mem_size_mib":129,"huge_pages":"2M"}`)},
	"odd memory patched":              {patch("/machine-config", `{"huge_pages":"2M"}`), patch("/machine-config", `{"mem_size_mib":129}`)},
	"three CPUs of two threads":       {put("/machine-config", `{"vcpu_count":3,"mem_size_mib":128,"smt":true}`)},
	"one CPU of two threads":          {put("/machine-config", `{"vcpu_count":1,"mem_size_mib":128,"smt":true}`)},
	"threads patched":                 {patch("/machine-config", `{"vcpu_count":3}`), patch("/machine-config", `{"smt":true}`)},
	"threads forgotten by a PUT":      {put("/machine-config", `{"vcpu_count":2,"mem_size_mib":128,"smt":true}`), put("/machine-config", `{"vcpu_count":3,"mem_size_mib":128}`)},
	"metadata too large":              {put("/mmds", `{"a":"`+strings.Repeat("x", 51200-7)+`"}`)},
	"metadata as large as can":        {put("/mmds", `{"a":"`+strings.Repeat("x", 51200-8)+`"}`)},
	"a patch too large":               {put("/mmds", `{"a":"`+strings.Repeat("x", 30000)+`"}`), patch("/mmds", `{"b":"`+strings.Repeat("x", 30000)+`"}`)},
	"a patch that removes":            {put("/mmds", `{"a":"`+strings.Repeat("x", 30000)+`"}`), patch("/mmds", `{"a":null,"b":"`+strings.Repeat("x", 30000)+`"}`)},
	"a body too large":                {put("/mmds", `{"a":"`+strings.Repeat("x", 60000)+`"}`)},
	"metadata for an unknown NIC":     {tap, put("/mmds/config", `{"network_interfaces":["eth0","eth1"]}`)},
	"metadata at an address":          {tap, put("/mmds/config", `{"network_interfaces":["eth0"],"ipv4_address":"169.254.1.1","version":"V2"}`)},
	"metadata at 169.254.255.1":       {tap, put("/mmds/config", `{"network_interfaces":["eth0"],"ipv4_address":"169.254.255.1"}`)},
	"metadata at 169.254.0.1":         {tap, put("/mmds/config", `{"network_interfaces":["eth0"],"ipv4_address":"169.254.0.1"}`)},
	"two sockets":                     {put("/vsock", `{"guest_cid":3,"uds_path":"a"}`), put("/vsock", `{"guest_cid":3,"uds_path":"b"}`)},
	"a socket in no directory":        {put("/vsock", `{"guest_cid":3,"uds_path":"none/a"}`)},
	"a socket of too long a name":     {put("/vsock", `{"guest_cid":3,"uds_path":"`+strings.Repeat("x", 120)+`"}`)},
	"a socket after a refused one":    {put("/vsock", `{"guest_cid":3,"uds_path":"a"}`), put("/vsock", `{"guest_cid":3,"uds_path":"disk"}`), put("/vsock", `{"guest_cid":3,"uds_path":"a"}`)},
	"a load after a refused drive":    {put("/drives/d1", `{"drive_id":"d1","path_on_host":"none","is_root_device":false}`), put("/snapshot/load", `{"snapshot_path":"none","mem_file_path":"none"}`)},
	"a load after a drive of no body": {put("/drives/d1", `{}`), put("/snapshot/load", `{"snapshot_path":"none","mem_file_path":"none"}`)},
	"a static template":               {patch("/machine-config", `{"cpu_template":"T2"}`)},

	"an unknown drive patched":        {kernel, start, patch("/drives/d1", `{"drive_id":"d1","path_on_host":"disk"}`)},
	"an unknown drive refreshed":      {kernel, start, patch("/drives/d1", `{"drive_id":"d1"}`)},
	"an unknown drive limited":        {kernel, start, patch("/drives/d1", `{"drive_id":"d1","rate_limiter":{}}`)},
	"a drive refreshed":               {kernel, disk, start, patch("/drives/d1", `{"drive_id":"d1"}`)},
	"a drive limited":                 {kernel, disk, start, patch("/drives/d1", `{"drive_id":"d1","rate_limiter":{"ops":{"size":1,"refill_time":1}}}`)},
	"a drive patched to nothing":      {kernel, disk, start, patch("/drives/d1", `{"drive_id":"d1","path_on_host":"none"}`)},
	"a drive patched to a directory":  {kernel, disk, start, patch("/drives/d1", `{"drive_id":"d1","path_on_host":"."}`)},
	"an unknown NIC patched":          {kernel, start, patch("/network-interfaces/eth0", `{"iface_id":"eth0"}`)},
	"a NIC limited":                   {kernel, tap, start, patch("/network-interfaces/eth0", `{"iface_id":"eth0","rx_rate_limiter":{"bandwidth":{"size":1,"refill_time":1}}}`)},
	"statistics that weren't asked":   {kernel, balloon, start, get("/balloon/statistics")},
	"statistics set where none were":  {kernel, balloon, start, patch("/balloon/statistics", `{"stats_polling_interval_s":1}`)},
	"statistics left where none were": {kernel, balloon, start, patch("/balloon/statistics", `{"stats_polling_interval_s":0}`)},
	"no balloon at all":               {kernel, start, get("/balloon")},
	"no balloon's statistics":         {kernel, start, get("/balloon/statistics")},
	"no balloon to patch":             {kernel, start, patch("/balloon", `{"amount_mib":1}`)},
	"no balloon to measure":           {kernel, start, patch("/balloon/statistics", `{"stats_polling_interval_s":1}`)},
	"a balloon patched over memory":   {kernel, balloon, start, patch("/balloon", `{"amount_mib":1000}`)},
	"a diff without tracking":         {kernel, start, pause, put("/snapshot/create", `{"snapshot_type":"Diff","snapshot_path":"s","mem_file_path":"m"}`)},
	"a diff of a running machine":     {kernel, patch("/machine-config", `{"track_dirty_pages":true}`), start, put("/snapshot/create", `{"snapshot_type":"Diff","snapshot_path":"s","mem_file_path":"m"}`)},
	"a diff with tracking":            {kernel, patch("/machine-config", `{"track_dirty_pages":true}`), start, pause, put("/snapshot/create", `{"snapshot_type":"Diff","snapshot_path":"s","mem_file_path":"m"}`)},
	"a snapshot into no directory":    {kernel, start, pause, put("/snapshot/create", `{"snapshot_path":"none/s","mem_file_path":"m"}`)},
	"memory into no directory":        {kernel, start, pause, put("/snapshot/create", `{"snapshot_path":"s","mem_file_path":"none/m"}`)},
	"a pause twice":                   {kernel, start, pause, pause},
	"a start twice":                   {kernel, start, start},
	"Ctrl-Alt-Del to a paused one":    {kernel, start, pause, put("/actions", `{"action_type":"SendCtrlAltDel"}`)},
	"metrics that were not asked for": {kernel, start, put("/actions", `{"action_type":"FlushMetrics"}`)},
}

func TestRealScenesAnswerAlike(t *testing.T) {
	l := newLab(t)
	var names []string
	for name := range scenes {
		names = append(names, name)
	}
	inParallel(names, func(name string) {
		if real, fake := l.both(t, scenes[name]...); real != fake {
			t.Errorf("%s\nreal: %s\nfake: %s", name, real, fake)
		}
	})
}

// Each method at each path of each version, with and without a body, with more behind it and with other ids: so both have the same routes.
func TestRealPathsAnswerAlike(t *testing.T) {
	l := newLab(t)
	paths := map[string]bool{"/": true, "": true, "//": true, "/none": true, "/none/at/all": true, "/vm": true, "/drives": true, "/balloon/hinting": true, "/snapshot": true, "/snapshot/none": true, "/hotplug": true,
		"/vm/none": true, "/mmds/none": true, "/actions/": true, "//version": true, "/Version": true, "/drives/a-b": true, "/drives/a.b": true, "/drives/": true, "/drives//": true, "/drives/%41": true, "/version?x=1": true}
	for _, c := range calls {
		paths[c.path], paths[c.path+"/"], paths[c.path+"/more"] = true, true, true
	}
	var all []call
	for path := range paths {
		if path == "" {
			continue // no request at all
		}
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodPost, http.MethodOptions} {
			for _, body := range []string{"", `{"nonsense":1}`} {
				all = append(all, call{fmt.Sprintf("%s %s", method, path), path, body})
			}
		}
	}
	l.alike(t, all)
}
