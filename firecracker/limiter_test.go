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
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
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

// TestRealLimitsOfDisks: the VMM has taken what was asked for, on each disk, at the start and at an update, which lifts what it does not name.
func TestRealLimitsOfDisks(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		slow, odd := &microvm.RateLimit{BytesPerSecond: 1 << 20, BytesBurst: 1 << 24, OpsPerSecond: 50}, &microvm.RateLimit{OpsPerSecond: 2000, OpsBurst: 10}
		r.spec = microvm.Spec{Rootfs: newDisk(t, "rootfs"), DiskLimit: slow, Drives: []microvm.Drive{{Path: newDisk(t, "a"), Limit: odd}, {Path: newDisk(t, "b"), ReadOnly: true}}}
		vm := r.create("one")
		r.start(vm)
		expect := func(limits ...*microvm.RateLimit) {
			t.Helper()
			config := r.configOf(vm)
			for i, want := range limits {
				if drive := config.Drives[i]; !reflect.DeepEqual(drive.RateLimiter, limiter(want)) {
					t.Errorf("%s: %s, want %s", filepath.Base(drive.PathOnHost), asJSON(drive.RateLimiter), asJSON(limiter(want)))
				}
			}
		}
		expect(slow, odd, nil)
		for _, row := range []struct {
			change microvm.Change
			want   []*microvm.RateLimit
		}{
			{microvm.Change{DiskLimit: odd}, []*microvm.RateLimit{odd, odd, nil}},
			{microvm.Change{DriveLimit: map[int]microvm.RateLimit{0: {}, 1: *slow}}, []*microvm.RateLimit{odd, nil, slow}},
			{microvm.Change{DiskLimit: &microvm.RateLimit{}, DriveLimit: map[int]microvm.RateLimit{1: *odd}}, []*microvm.RateLimit{nil, nil, odd}},
		} {
			if err := vm.Update(t.Context(), row.change); err != nil {
				t.Fatal(err)
			}
			expect(row.want...)
		}
		r.destroy(vm)
	})
}

// TestRealLimitsOfNetwork: the VMM has taken what was asked for, at create and at an update, and what an update lifts is limited no more.
func TestRealLimitsOfNetwork(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		slow, odd := &microvm.RateLimit{BytesPerSecond: 1 << 20, BytesBurst: 1 << 24, OpsPerSecond: 50}, &microvm.RateLimit{OpsPerSecond: 2000, OpsBurst: 10}
		r.spec.Network = &microvm.Network{Receive: slow, Transmit: odd}
		vm := r.create("one")
		r.start(vm)
		expect := func(receive, transmit *api.RateLimiter) {
			t.Helper()
			config := r.configOf(vm)
			if len(config.NetworkInterfaces) != 1 {
				t.Fatalf("%+v", config)
			}
			got := config.NetworkInterfaces[0]
			if !reflect.DeepEqual(got.RxRateLimiter, receive) || !reflect.DeepEqual(got.TxRateLimiter, transmit) {
				t.Errorf("receive %s, transmit %s, want %s, %s", asJSON(got.RxRateLimiter), asJSON(got.TxRateLimiter), asJSON(receive), asJSON(transmit))
			}
		}
		expect(limiter(slow), limiter(odd))
		for _, row := range []struct {
			change            microvm.Change
			receive, transmit *microvm.RateLimit
		}{
			{microvm.Change{Receive: odd, Transmit: &microvm.RateLimit{}}, odd, nil},
			{microvm.Change{Transmit: slow}, odd, slow},
		} {
			if err := vm.Update(t.Context(), row.change); err != nil {
				t.Fatal(err)
			}
			expect(limiter(row.receive), limiter(row.transmit))
		}
		r.destroy(vm)
	})
}

// configOf is what a machine's VMM says that it runs with.
func (r *rig) configOf(vm *microvm.VM) api.ConfigFile {
	r.t.Helper()
	client := r.driver.client(must(r.driver.state.ReadRecord(vm.UID())))
	defer client.Close()
	config, err := client.GetVMConfig(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return config
}

// TestUpdateThatTheVMMRefused is done by the same update again, though the record has it already.
func TestUpdateThatTheVMMRefused(t *testing.T) {
	o := fakeOptions(t, fakevmm.Faults{})
	vm, err := mustNew(t, o).Create(t.Context(), "machine", microvm.Spec{Diskless: true, Drives: []microvm.Drive{{Path: newDisk(t, "a")}}})
	if err == nil {
		err = vm.Start(t.Context(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	inject := func(faults fakevmm.Faults) {
		if err := fakevmm.Inject(o.Firecracker, faults); err != nil {
			t.Fatal(err)
		}
	}
	change := microvm.Change{DriveLimit: map[int]microvm.RateLimit{0: {OpsPerSecond: 7}}}
	inject(fakevmm.Faults{Requests: map[string]fakevmm.Fault{"PATCH /drives/{drive_id}": {Status: 500}}})
	for range 2 {
		if err := vm.Update(t.Context(), change); err == nil || !strings.Contains(err.Error(), "as told") {
			t.Errorf("the VMM refused, and Update = %v", err)
		}
	}
	inject(fakevmm.Faults{})
	if err := vm.Update(t.Context(), change); err != nil {
		t.Error(err)
	}
}
