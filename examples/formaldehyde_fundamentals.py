"""Fundamentals of formaldehyde on a campaign's model, beside the measured ones.

    alloop run campaigns/formaldehyde_vibrations.yaml
    python examples/formaldehyde_fundamentals.py runs/formaldehyde_vibrations.zarr

--direct FILE compares harmonic wavenumbers with those of the level itself:
`alloop vibrations campaigns/h2co.xyz --level ... --json > FILE`.
"""

import argparse
import json
from pathlib import Path

import alloop
from alloop.history.measured_costs import cpu_seconds_by_part, measured_costs
from alloop.md.anharmonic import anharmonic_vibrations
from alloop.md.thermal_frames import relax_frame
from alloop.md.vibrations import harmonic_vibrations

MEASURED = (1167, 1249, 1500, 1746, 2782, 2843)  # cm⁻¹; Nakanaga et al., 1982


def main() -> None:
    """Print wavenumbers, the share within 10 and 20 cm⁻¹, and what it all cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--direct", type=Path, help="harmonic ones of the level")
    options = parser.parse_args()
    campaign = alloop.Campaign.from_store(options.store)
    model, history = campaign.model(), campaign.history()
    minimum = relax_frame(history.state.start[0], model, fmax=1e-3)
    harmonic = harmonic_vibrations(minimum, model)
    anharmonic = anharmonic_vibrations(harmonic, model)
    fundamentals = anharmonic.fundamentals
    print("mode  harmonic  fundamental  measured  difference, cm⁻¹")
    rows = zip(harmonic.modes.wavenumbers, fundamentals, MEASURED, strict=True)
    for mode, (w, nu, real) in enumerate(rows):
        print(f"{mode:4} {w:9.1f} {nu:12.1f} {real:9} {nu - real:11.1f}")
    for within in (10, 20):
        count = sum(abs(fundamentals - MEASURED) < within)
        print(f"{count} of {len(MEASURED)} within {within} cm⁻¹")
    print(f"quartic constants agree within {anharmonic.noise:.1f} cm⁻¹")
    if options.direct:
        (direct,) = json.loads(options.direct.read_text())
        away = harmonic.modes.wavenumbers - direct["wavenumbers"]
        print("harmonic, less direct:", *(f"{x:+.1f}" for x in away), "cm⁻¹")
    spent = cpu_seconds_by_part(history)
    print("CPU seconds:", ", ".join(f"{k} {v:.0f}" for k, v in spent.items()))
    for cost in measured_costs(history):
        print(f"{cost.labels} {cost.fidelity} labels of {cost.cpu_seconds:.1f} s")
        if cost.fidelity == "expensive":
            frames = 6 * len(minimum) + 8 * len(fundamentals) ** 2 + 1
            hours = frames * cost.cpu_seconds / 3600
            print(f"directly: {frames} expensive labels, {hours:.1f} CPU hours")


if __name__ == "__main__":
    main()
