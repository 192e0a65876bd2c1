//go:build linux

package image

import (
	"context"
	"errors"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/flatten"
)

// library is a source of documents that a fuzzer made, whatever their digests.
type library struct {
	documents [][]byte
	asked     int
}

func (l *library) document(_ context.Context, d v1.Descriptor) ([]byte, error) {
	if err := checkDocument(d); err != nil {
		return nil, err
	}
	l.asked++
	return l.documents[int(d.Size)%len(l.documents)], nil
}

func (l *library) layer(context.Context, v1.Descriptor, func(int64)) (blob, error) {
	return blob{}, errors.New("no layers here")
}

const zeroDigest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

// FuzzResolve resolves manifests, indexes and configurations: it ends, asks for few documents, and answers a recipe within limits or an error of a known kind.
func FuzzResolve(f *testing.F) {
	manifest := `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + zeroDigest + `","size":1},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + zeroDigest + `","size":100}]}`
	index := `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + zeroDigest + `","size":2,"platform":{"os":"linux","architecture":"amd64"}},{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"` + zeroDigest + `","size":0}]}`
	config := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + zeroDigest + `"]},"config":{"Env":["A=b"],"ExposedPorts":{"80/tcp":{}},"Labels":{"a":"b"}}}`
	f.Add([]byte(index), []byte(config), []byte(manifest))
	f.Add([]byte(manifest), []byte(config), []byte("{}"))
	f.Add([]byte(`{"manifests":null,"config":null}`), []byte("[]"), []byte("null"))
	f.Fuzz(func(t *testing.T, first, second, third []byte) {
		l := &library{documents: [][]byte{first, second, third}}
		limits := flatten.Limits{Bytes: 1 << 30, Layers: 10}.WithDefaults()
		r, err := resolve(t.Context(), l, first, v1.Platform{OS: "linux", Architecture: "amd64"}, limits)
		if l.asked > maxIndexes+1 {
			t.Fatalf("%d documents", l.asked)
		}
		if err != nil {
			for _, known := range []error{ErrMalformed, ErrLimit, microvm.ErrUnsupported, microvm.ErrIncompatible} {
				if errors.Is(err, known) {
					return
				}
			}
			t.Fatal(err)
		}
		sum := int64(0)
		for _, p := range r.layers {
			sum += p.Size
			if len(p.diffID) != len(zeroDigest) || p.Digest.Hex == "" {
				t.Fatalf("%+v", p)
			}
		}
		if len(r.layers) > limits.Layers || sum > limits.Bytes || len(r.digest) != len(zeroDigest) {
			t.Fatalf("%+v", r)
		}
	})
}

// FuzzSaved parses what docker save writes.
func FuzzSaved(f *testing.F) {
	f.Add([]byte(`[{"Config":"c.json","RepoTags":["a:1"],"Layers":["a/layer.tar"]}]`))
	f.Add([]byte(`[{"Config":"c.json","RepoTags":null,"Layers":[]},{}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, i := range parseSaved(text) {
			if i.Config == "" || i.Layers == nil {
				t.Fatalf("%+v", i)
			}
			for _, name := range tagsOf(i) {
				if name == "" {
					t.Fatalf("%+v", i)
				}
			}
		}
	})
}
