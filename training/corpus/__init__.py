"""Seeded generator of Korean dialogues with reference summaries.

`dialogue.generate` is the door; the text itself is data (`situations.yaml`, `small_talk.yaml`,
`values.yaml`).
"""
