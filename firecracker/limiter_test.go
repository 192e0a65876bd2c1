//go:build linux

package firecracker

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

func TestLimiter(t *testing.T) {
	for _, c := range []struct {
		limit *microvm.RateLimit
		want  string
	}{
		{nil, "null"},
		{&microvm.RateLimit{}, "null"},
		{&microvm.RateLimit{BytesPerSecond: 4096}, `{"bandwidth":{"size":4096,"refill_time":1000}}`},
		{&microvm.RateLimit{BytesPerSecond: 655359}, `{"bandwidth":{"size":655359,"refill_time":1000}}`},
		{&microvm.RateLimit{BytesPerSecond: 655360, BytesBurst: 1 << 30}, `{"bandwidth":{"size":65536,"one_time_burst":1073741824,"refill_time":100}}`},
		{&microvm.RateLimit{OpsPerSecond: 999}, `{"ops":{"size":999,"refill_time":1000}}`},
		{&microvm.RateLimit{OpsPerSecond: 1000, OpsBurst: 5}, `{"ops":{"size":100,"one_time_burst":5,"refill_time":100}}`},
		{&microvm.RateLimit{BytesPerSecond: 1 << 40, OpsPerSecond: 1e9}, `{"bandwidth":{"size":109951162777,"refill_time":100},"ops":{"size":100000000,"refill_time":100}}`},
	} {
		if got, err := json.Marshal(limiter(c.limit)); err != nil || string(got) != c.want {
			t.Errorf("%+v became %s, %v; want %s", c.limit, got, err, c.want)
		}
	}
	for rate := int64(1); rate <= 1e9; rate += 1 + rate/7 { // never more than asked for, and hardly less
		got := bucket(rate, 0, leastOps)
		if is := got.Size * 1000 / got.RefillTime; is > rate || float64(is) < 0.99*float64(rate) {
			t.Errorf("%d a second became %d", rate, is)
		}
	}
}

// TestCompareTellsLimits: a VMM that runs with another limit than was asked for is found.
func TestCompareTellsLimits(t *testing.T) {
	record := &state.Record{Spec: microvm.Spec{VCPUs: 1, Rootfs: "/r", Drives: []microvm.Drive{{Path: "/d", Limit: &microvm.RateLimit{OpsPerSecond: 5}}}}}
	asked := planOf(record)
	told := func() api.ConfigFile {
		c := asked.config()
		c.MachineConfig.HugePages = "None"
		for i := range c.Drives {
			setDefault(&c.Drives[i].CacheType, "Unsafe")
			c.Drives[i].IOEngine = "Sync"
		}
		return c
	}
	if err := asked.compare(told()); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*api.ConfigFile){
		"none":    func(c *api.ConfigFile) { c.Drives[1].RateLimiter = nil },
		"another": func(c *api.ConfigFile) { c.Drives[1].RateLimiter.Ops.Size = 6 },
		"one more": func(c *api.ConfigFile) {
			c.Drives[0].RateLimiter = &api.RateLimiter{Bandwidth: &api.TokenBucket{Size: 1, RefillTime: 1000}}
		},
	} {
		c := told()
		change(&c)
		if err := asked.compare(c); err == nil || !strings.Contains(err.Error(), `"ops":{"size":5`) && name != "one more" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRealLimitsOfDisks: the VMM has taken what was asked for, on each disk.
func TestRealLimitsOfDisks(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		slow, odd := &microvm.RateLimit{BytesPerSecond: 1 << 20, BytesBurst: 1 << 24, OpsPerSecond: 50}, &microvm.RateLimit{OpsPerSecond: 2000, OpsBurst: 10}
		spec := microvm.Spec{Rootfs: newDisk(t, "rootfs"), DiskLimit: slow, Drives: []microvm.Drive{{Path: newDisk(t, "a"), Limit: odd}, {Path: newDisk(t, "b"), ReadOnly: true}}}
		vm, err := r.runtime.Create(t.Context(), "one", spec)
		if err != nil {
			t.Fatal(err)
		}
		r.start(vm)
		client := r.driver.client(must(r.driver.state.ReadRecord(vm.UID())))
		defer client.Close()
		config, err := client.GetVMConfig(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []*microvm.RateLimit{slow, odd, nil} {
			if drive := config.Drives[i]; !reflect.DeepEqual(drive.RateLimiter, limiter(want)) {
				t.Errorf("%s: %s, want %s", filepath.Base(drive.PathOnHost), asJSON(drive.RateLimiter), asJSON(limiter(want)))
			}
		}
		r.destroy(vm)
	})
}

// TestRealLimitsOfNetwork: the VMM has taken what was asked for, at create and at an update, and what an update lifts is limited no more.
func TestRealLimitsOfNetwork(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"})
	slow, odd := &microvm.RateLimit{BytesPerSecond: 1 << 20, BytesBurst: 1 << 24, OpsPerSecond: 50}, &microvm.RateLimit{OpsPerSecond: 2000, OpsBurst: 10}
	r.spec.Network = &microvm.Network{Receive: slow, Transmit: odd}
	vm := r.create("one")
	r.start(vm)
	client := r.driver.client(must(r.driver.state.ReadRecord(vm.UID())))
	defer client.Close()
	expect := func(receive, transmit *api.RateLimiter) {
		t.Helper()
		config, err := client.GetVMConfig(t.Context())
		if err != nil || len(config.NetworkInterfaces) != 1 {
			t.Fatalf("%+v, %v", config, err)
		}
		got := config.NetworkInterfaces[0]
		if !reflect.DeepEqual(got.RxRateLimiter, receive) || !reflect.DeepEqual(got.TxRateLimiter, transmit) {
			t.Errorf("receive %s, transmit %s, want %s, %s", asJSON(got.RxRateLimiter), asJSON(got.TxRateLimiter), asJSON(receive), asJSON(transmit))
		}
	}
	expect(limiter(slow), limiter(odd))
	if err := vm.Update(t.Context(), microvm.Change{Receive: odd, Transmit: &microvm.RateLimit{}}); err != nil {
		t.Fatal(err)
	}
	expect(limiter(odd), nil)
	r.destroy(vm)
}
